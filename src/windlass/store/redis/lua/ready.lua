#!lua flags=no-writes
-- Ready or waiting jobs of the lines that a filter names. ARGV: how many of each line, filter, `l` or `x`, the member to go
-- on after.
-- Answers (member, whether it has the tag) in no order.
local filter, found = cmsgpack.unpack(ARGV[2]), {}
local from = ARGV[4] and '(' .. ARGV[4] or '-'
for _, line in ipairs(call('SMEMBERS', ARGV[3] == 'x' and WAITS or LINES)) do
  local queue, task = string.match(line, '^([^/]*)/([^!]*)')
  if (not filter[2] or filter[2] == queue) and (not filter[3] or filter[3] == task) then
    for _, member in ipairs(call('ZRANGE', P .. ARGV[3] .. ':' .. line, from, '+', 'BYLEX', 'LIMIT', 0, ARGV[1])) do
      found[#found + 1] = member
      local tagged = not filter[4] or call('ZSCORE', P .. 'tag:' .. filter[4], sub(member, ORDER + 1))
      found[#found + 1] = tagged and 1 or 0
    end
  end
end
return found
