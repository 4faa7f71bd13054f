-- What becomes of a job that has the unique key of a new one.

local function with(flags, bit, on)
  return flags + (on and not has(flags, bit) and bit or 0) - (not on and has(flags, bit) and bit or 0)
end

-- Give an idle job other arguments and options, and others that follow it.
local function replace(job, following, text)
  local flags, enqueued, run_at, rank, expires, priority, line, unique, tags = read(call('HGET', JOBS, job.id), 9)
  if not (numbers(flags, enqueued, run_at, rank, priority) and type(line) == 'string') then
    return -- nobody of ours wrote it
  end
  local big = #text > INLINE
  local function changed(bits)
    return with(with(bits, 16, big), 32, following and true or false)
  end
  local head = pack(changed(flags), enqueued, run_at, rank, expires, priority, line, unique, tags)
  later('HSET', JOBS, job.id, keep(job.id, head, text))
  if not big then
    later('HDEL', BIG, job.id)
  end
  if following then
    later('HSET', FOLLOW, job.id, following)
  else
    later('HDEL', FOLLOW, job.id)
  end
  job.flags = changed(job.flags)
  if call('HEXISTS', NEWS, job.id) == 1 then
    save(job)
  end
end

-- Have an idle job due at another moment, at most so long after it was made; when that is.
local function move(job, due, most, t)
  local at = most and min(due, job.enqueued + most) or due
  local scheduled = step_away(job)
  job.due, job.rank = at, max(t, at) - turns_of(job)
  if at > t then
    if not scheduled and has(job.flags, 64) then
      left(job.id, job.stood, false)
    end
    plan(job)
  else
    if scheduled then
      take_turn(job)
    end
    ready(job)
  end
  save(job)
  return at
end
