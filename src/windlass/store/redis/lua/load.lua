#!lua flags=no-writes
-- Documents of a kind: the store's time, then name and value of each. ARGV: kind, the most, and how: 'due' and
-- microseconds from now (earliest first), 'after' and a name, or 'named' and names.
local kind, most, how = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local t = now()
local names
if how == 'due' then
  names = call('ZRANGE', P .. 'dd:' .. kind, '-inf', t + tonumber(ARGV[4]), 'BYSCORE', 'LIMIT', 0, most)
elseif how == 'named' then
  names = cmsgpack.unpack(ARGV[4])
else
  names = call('ZRANGE', P .. 'dn:' .. kind, '(' .. ARGV[4], '+', 'BYLEX', 'LIMIT', 0, most)
end
local found = {format('%.0f', t)}
for _, name in ipairs(names) do
  local value = call('HGET', P .. 'd:' .. kind, name)
  if value then
    found[#found + 1], found[#found + 2] = name, value
  end
end
return found
