#!lua flags=no-writes
-- Statistics. ARGV: `t` or `td`, what names begin with, then hashes. Answers (number of the hash, name, values).
local found = {}
for n = 3, #ARGV do
  local pairs_ = call('HGETALL', P .. ARGV[1] .. ':' .. ARGV[n])
  for at = 1, #pairs_, 2 do
    if sub(pairs_[at], 1, #ARGV[2]) == ARGV[2] then
      local last = #found
      found[last + 1], found[last + 2], found[last + 3] = n - 3, pairs_[at], pairs_[at + 1]
    end
  end
end
return found
