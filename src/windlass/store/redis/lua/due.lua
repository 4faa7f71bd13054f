-- What time does: due jobs become ready, expired ones end. Both at most BATCH a call.

-- End jobs that are past their time to start.
local function cancel_expired(ids, t)
  for _, id in ipairs(ids) do
    local job = load(id)
    if job and job.state == 'i' then
      leave(job)
      job.reason = 'expired'
      finish(job, 'c', t)
      save(job)
    else
      later('ZREM', EXPIRING, id)
    end
  end
end

-- Whether jobs expired, and whether more of them are left.
local function expire(t)
  local ids = call('ZRANGE', EXPIRING, '-inf', t, 'BYSCORE', 'LIMIT', 0, BATCH)
  cancel_expired(ids, t)
  flush()
  return #ids > 0, #ids == BATCH
end

-- When the next job is due.
local function promote(t)
  local first = call('ZRANGE', DUE, 0, 0, 'WITHSCORES')
  if not first[1] or tonumber(first[2]) > t then
    return tonumber(first[2])
  end
  local ids = call('ZRANGE', DUE, '-inf', t, 'BYSCORE', 'LIMIT', 0, BATCH)
  local texts, raws = hmget(JOBS, ids), hmget(NEWS, ids)
  for n, id in ipairs(ids) do
    local job = load(id, raws[n], texts[n])
    if job then
      if has(job.flags, 256) and take_turn(job) then
        save(job)
      end
      ready(job)
      count_planned(job.line, -1)
    end
  end
  call('ZREMRANGEBYRANK', DUE, 0, #ids - 1)
  flush()
  return tonumber(call('ZRANGE', DUE, 0, 0, 'WITHSCORES')[2])
end
