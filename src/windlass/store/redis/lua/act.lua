#!lua flags=allow-oom
-- An operator's verb. ARGV: verb, filter (as in filter.lua), ids; the ids that it was done to.
local verb, filter, ids, t = ARGV[1], cmsgpack.unpack(ARGV[2]), cmsgpack.unpack(ARGV[3]), now()
local done = {}

local function not_over(job)
  later('ZREM', P .. 'over:' .. job.state, job.id)
  forget_error(job.id, job.state)
end

local function delete(job)
  if job.state == 'r' then
    return false
  end
  if job.state == 'i' then
    leave(job)
    if has(job.flags, 64) then
      left(job.id, job.stood, true)
    end
  else
    not_over(job)
  end
  if has(job.flags, 1) then
    free(job.id)
  end
  drop(job.id, job.flags)
  return true
end

local function retry(job)
  if job.state == 'r' or (job.state == 'i' and not call('ZSCORE', DUE, job.id)) then
    return false
  end
  if job.state == 'i' then
    call('ZREM', DUE, job.id)
    count_planned(job.line, -1)
  else
    if has(job.flags, 1) and take((unique_and_tags(job.id)), job.id, nil, t) ~= job.id then
      return false
    end
    not_over(job)
    job.state, job.attempt, job.lost, job.runner, job.cancelling, job.renewed = 'i', 0, 0, nil, nil, 1
    job.reason, job.result, job.progress, job.finished = nil, nil, nil, nil
  end
  job.due, job.rank = t, t - turns_of(job)
  take_turn(job)
  ready(job)
  save(job)
  return true
end

local verbs = {cancel = function(job) return cancel(job, BY_OPERATOR, t) end, delete = delete, retry = retry}
local seen = {}
for _, id in ipairs(ids) do
  local job = not seen[id] and load(id)
  seen[id] = true
  if job and matches(job, filter) and verbs[verb](job) then
    done[#done + 1] = id
  end
end
flush()
if #done > 0 then
  trim(max(64, #done))
  ring(verb == 'retry' and 'work' or 'done')
end
return done
