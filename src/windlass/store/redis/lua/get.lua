#!lua flags=no-writes
-- Jobs by id. ARGV: ids. Answers for each that exists: id, its texts in `jobs` and `news`, whether it is
-- scheduled, its attempts, and what follows it.
local found, ids = {}, cmsgpack.unpack(ARGV[1])
local colds, raws = hmget(JOBS, ids), hmget(NEWS, ids)
for n, id in ipairs(ids) do
  if colds[n] then
    local at, flags = #found, byte(colds[n]) or 0
    found[at + 1], found[at + 2], found[at + 3] = id, whole(id, colds[n]), raws[n]
    found[at + 4] = state_of(id, raws[n]) == 'd' and 1 or 0
    found[at + 5] = raws[n] and call('LRANGE', P .. 'a:' .. id, 0, -1) or {}
    found[at + 6] = has(flags, 32) and call('HGET', FOLLOW, id) or false
  end
end
return found
