#!lua flags=no-writes
-- Jobs by id. ARGV: ids. Answers for each that exists: id, its texts in `jobs` and `news`, the letter of its state, its
-- attempts, what follows it, its gates, and its turns.
local found, ids = {}, cmsgpack.unpack(ARGV[1])
local colds, raws = hmget(JOBS, ids), hmget(NEWS, ids)
for n, id in ipairs(ids) do
  if colds[n] then
    local at, flags = #found, flags_of(colds[n])
    found[at + 1], found[at + 2], found[at + 3] = id, whole(id, colds[n]), raws[n]
    found[at + 4] = state_of(id, raws[n])
    found[at + 5] = raws[n] and call('LRANGE', P .. 'a:' .. id, 0, -1) or {}
    found[at + 6] = has(flags, 32) and call('HGET', FOLLOW, id) or false
    found[at + 7] = has(flags, 64) and call('HGET', GATES, id) or false
    found[at + 8] = has(flags, 256) and call('HGET', TURNS, id) or false
  end
end
return found
