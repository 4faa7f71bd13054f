-- A job that does not run as it stands elsewhere: of amend.lua and lift.lua.

-- Where the bytes begin and end that stand from a place on, which this MessagePack cannot read; nil holds none.
local function extent(text, from)
  local kind, a, b, c, d = byte(text, from, from + 4)
  if kind == 196 then
    return from + 2, from + 1 + a
  elseif kind == 197 then
    return from + 3, from + 2 + 256 * a + b
  elseif kind == 198 then
    return from + 5, from + 4 + 16777216 * a + 65536 * b + 256 * c + d
  end
  return from + 1, from
end

-- The text of a job with another head, and with other options (false: none) unless they stay.
local function rewrite(job, kept, options)
  local record = call('HGET', JOBS, job.id)
  local fine, at, flags, enqueued, run_at, rank, expires, priority, line, unique, tags = pcall(unpack_limit, record, 9)
  if not (fine and numbers(flags, enqueued, run_at, rank, priority) and type(line) == 'string') then
    return false -- nobody of ours wrote it
  end
  local rest = has(flags, 16) and call('HGET', BIG, job.id) or sub(record, at + 1)
  if not kept then
    local _, last = extent(rest, 1)
    rest = sub(rest, 1, last) .. (options and binary(options) or pack(nil))
    job.flags = job.flags - (has(job.flags, 16) and 16 or 0) + (#rest > INLINE and 16 or 0)
    if #rest <= INLINE then
      later('HDEL', BIG, job.id)
    end
  end
  local head = pack(job.flags - (has(job.flags, 8) and 8 or 0), enqueued, run_at, job.rank, expires, job.priority, job.line,
    unique, tags)
  later('HSET', JOBS, job.id, keep(job.id, head, rest))
  job.first_rank = job.rank
  if call('HEXISTS', NEWS, job.id) == 1 then
    save(job)
  end
  return true
end

-- What tells of how far a job stands ahead, and of its turns; nothing for one that does neither.
local function set_ahead(job, ahead)
  local _, key, spacing, weight = read(has(job.flags, 256) and call('HGET', TURNS, job.id), 4)
  job.flags = job.flags - (has(job.flags, 256) and 256 or 0)
  if ahead ~= 0 or key then
    job.flags, job.turns = job.flags + 256, {ahead, key, spacing}
    later('HSET', TURNS, job.id, pack(ahead, key, spacing or 0, weight or 0))
  else
    job.turns = {0}
    later('HDEL', TURNS, job.id)
  end
end
