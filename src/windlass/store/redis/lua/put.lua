#!lua
-- Store jobs, marks and documents. ARGV: jobs (id, line, priority, more), marks (key, job, ttl), docs (kind, name,
-- version, due), whether this is a repeat; then one text per job (args and options), one per document.
-- Answers one letter per job (upper case: new), and for each of the others the id that stands for it.
local JOB, SOON = 4, 2000000
local jobs, marks, docs = cmsgpack.unpack(ARGV[1]), cmsgpack.unpack(ARGV[2]), cmsgpack.unpack(ARGV[3])
local texts = 4
local count = #jobs / JOB
local conflict = check_docs(docs, texts + count, ARGV[4] == '1')
if conflict then
  return conflict
end
local t = now()
local moment = format('%.0f', t)
local stands_in, seen, plain, hint = {}, {}, {}, false
save_docs(docs, texts + count)

for n = 1, #marks, 3 do
  local holder, taken_before = take(marks[n], marks[n + 1], t + marks[n + 2], t)
  if taken_before then
    stands_in[marks[n + 1]] = holder
  end
end

-- The text of a job as `jobs` has it: without what is big.
local function keep(id, head, text)
  if #text > INLINE then
    later('HSET', BIG, id, text)
    return head
  end
  return head .. text
end

-- What all plain jobs of one line and priority have in common.
local function plain_place(line, priority, big)
  local name = line .. (big and '+' or ' ') .. priority
  if not plain[name] then
    plain[name] = {pack(big and 16 or 0, t, t, t, nil, priority, line, nil, nil), order(priority, t),
      P .. 'l:' .. line}
    touched[line], hint = true, true
  end
  return plain[name]
end

local function insert_plain(id, line, priority, text)
  local place = plain_place(line, priority, #text > INLINE)
  later('HSET', JOBS, id, keep(id, place[1], text))
  later('ZADD', ALL, moment, id)
  later('ZADD', place[3], '0', place[2] .. id)
  seen[id] = 'q'
  return 'Q'
end

local function restore(job, past)
  job.attempt, job.lost, job.fence = past[2], past[3], past[4]
  if #past > 4 then
    job.flags = job.flags + 8
  end
  for n = 5, #past do
    local a = past[n]
    call('RPUSH', P .. 'a:' .. job.id, pack(a[1], a[2], a[3], a[4] or nil, a[5] or nil, a[6], a[7] or nil))
  end
  if job.attempt > 0 or job.lost > 0 or job.fence > 0 or #past > 4 then
    save(job)
  end
end

local function insert(id, line, priority, more, text)
  local delay, run_at, expires_in, unique, tags, past = unpack(more)
  local due = run_at or t + delay
  local enqueued = past and past[1] or t
  local expires = expires_in and t + expires_in or nil
  local flags = (unique and 1 or 0) + (tags and 2 or 0) + (expires and 4 or 0) + (#text > INLINE and 16 or 0)
  local job = {id = id, state = 'i', fence = 0, attempt = 0, lost = 0, flags = flags, line = line, priority = priority,
    due = due, rank = past and due or max(t, due)}
  local head = pack(flags, enqueued, due, job.rank, expires, priority, line, unique or nil, tags or nil)
  later('HSET', JOBS, id, keep(id, head, text))
  later('ZADD', ALL, enqueued, id)
  for _, tag in ipairs(tags or {}) do
    later('ZADD', P .. 'tag:' .. tag, enqueued, id)
  end
  if past then
    job.due = nil
    restore(job, past)
    job.due = due
  end
  if expires and job.fence == 0 then
    later('ZADD', EXPIRING, expires, id)
  end
  hint = hint or due <= t + SOON
  if due > t then
    plan(job)
    return 'D'
  end
  ready(job)
  return 'Q'
end

local letters, others = {}, {}

local function answer(n, letter, other)
  letters[n] = letter
  others[#others + 1] = other
end

local function put_one(n, id, known)
  local at = (n - 1) * JOB
  local line, priority, more = jobs[at + 2], jobs[at + 3], jobs[at + 4]
  if seen[id] or known then
    return answer(n, seen[id] or state_of(id), id)
  end
  local other = stands_in[id]
  if not other and more and more[4] then
    local holder = take(more[4], id, nil, t)
    other = holder ~= id and holder or nil
  end
  if other then
    return answer(n, seen[other] or (call('HEXISTS', JOBS, other) == 1 and state_of(other)) or '-', other)
  end
  if more then
    letters[n] = insert(id, line, priority, more, ARGV[texts + n])
    seen[id] = string.lower(letters[n])
  else
    letters[n] = insert_plain(id, line, priority, ARGV[texts + n])
  end
end

for first = 1, count, CHUNK do
  local last, ids = min(first + CHUNK - 1, count), {}
  for n = first, last do
    ids[n - first + 1] = jobs[(n - 1) * JOB + 1]
  end
  local known = call('ZMSCORE', ALL, unpack(ids))
  for n = first, last do
    put_one(n, ids[n - first + 1], known[n - first + 1])
  end
end
flush()
if hint then
  ring('work')
end
return {table.concat(letters), others}
