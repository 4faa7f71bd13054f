#!lua
-- Add to statistics: hashes by seconds and minute in which those begin, of msgpack values by name. ARGV: `t` (sums) or `td`
-- (of each number the most), how many names one hash has, what the rest is called, then rows (hash, seconds for which it
-- is kept, name, values). Nothing but these hashes is read, and they go by themselves.
local most, rows = tonumber(ARGV[2]), cmsgpack.unpack(ARGV[4])
for n = 1, #rows, 4 do
  local key, name, values = P .. ARGV[1] .. ':' .. rows[n], rows[n + 2], rows[n + 3]
  local stored = call('HGET', key, name)
  if not stored and call('HLEN', key) >= most then
    name = ARGV[3]
    stored = call('HGET', key, name)
  end
  local fine, old = pcall(cmsgpack.unpack, stored or '')
  if fine and type(old) == 'table' then
    for at = 1, #values do
      local had = tonumber(old[at]) or 0
      values[at] = ARGV[1] == 't' and had + values[at] or max(had, values[at])
    end
  end
  call('HSET', key, name, pack(values))
  call('EXPIRE', key, rows[n + 1])
end
