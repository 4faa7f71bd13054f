#!lua flags=no-writes
-- Running jobs that match. ARGV: filter. Answers (started, id).
local filter, found = cmsgpack.unpack(ARGV[1]), {}
for _, runner in ipairs(call('HKEYS', P .. 'runners')) do
  local ids = call('SMEMBERS', P .. 'held:' .. runner)
  local raws = hmget(NEWS, ids)
  for n, id in ipairs(ids) do
    local job = load(id, raws[n])
    if job and matches(job, filter) then
      found[#found + 1] = job.started
      found[#found + 1] = id
    end
  end
end
return found
