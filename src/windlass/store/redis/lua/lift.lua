#!lua flags=allow-oom
-- Lift jobs that stand behind and have waited for that. ARGV: how early (microseconds), the priority at which they stand from
-- then on; how many. A job behind gates leaves its place, then comes anew.
local early, priority = tonumber(ARGV[1]), tonumber(ARGV[2])
local ids = call('ZRANGE', BEHIND, '-inf', format('%.0f', now() + early), 'BYSCORE', 'LIMIT', 0, BATCH)

local function lift(job)
  local ahead = turns_of(job)
  step_away(job)
  if has(job.flags, 64) then
    left(job.id, job.stood, false)
  end
  job.priority, job.rank = priority, job.rank + ahead
  set_ahead(job, 0)
  ready(job)
  rewrite(job, true)
end

for _, id in ipairs(ids) do
  local job = load(id)
  if job and job.state == 'i' and turns_of(job) < 0 and numbers((read(call('HGET', JOBS, id), 1))) then
    lift(job)
  else
    later('ZREM', BEHIND, id) -- somebody took it away by hand
  end
end
flush()
if #ids > 0 then
  ring('work')
end
return #ids
