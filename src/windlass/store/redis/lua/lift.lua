#!lua flags=allow-oom
-- Lift jobs that stand behind and have waited for that. ARGV: how early (microseconds), the priority at which they stand from
-- then on, how many to look at. A job behind gates leaves its place, then comes anew. Answers how many were lifted, and how
-- many were looked at.
local priority, upto = tonumber(ARGV[2]), now() + tonumber(ARGV[1])
local ids = call('ZRANGE', BEHIND, '-inf', format('%.0f', upto), 'BYSCORE', 'LIMIT', 0, ARGV[3])

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

local lifted = 0
for _, id in ipairs(ids) do
  local job = load(id)
  if not stands_behind(job) then
    later('ZREM', BEHIND, id)
  elseif job.rank > upto then
    call('ZADD', BEHIND, job.rank, id)
  else
    lift(job)
    lifted = lifted + 1
  end
end
flush()
if lifted > 0 then
  ring('work')
end
return {lifted, #ids}
