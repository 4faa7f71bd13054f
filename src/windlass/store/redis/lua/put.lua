#!lua
-- Store jobs, marks and documents. ARGV: ids; runs of jobs of one kind (count, line, priority); what single jobs have
-- beyond that (their number, more); marks (key, job, ttl); docs (kind, name, version, due); whether this is a repeat;
-- then one text per job (args and options), one per document.
-- Answers one letter per job (upper case: new), and for each of the others the id that stands for it.
-- plain.lua, in front of this, has read them, and stores plain jobs.
local SOON = 2000000
local count = #ids
local conflict = check_docs(docs, texts + count, ARGV[6] == '1')
if conflict then
  return conflict
end
local t = now()
local stands_in, more_of, seen, hint, ended = {}, {}, {}, false, false
save_docs(docs, texts + count, t)

for n = 1, #marks, 3 do
  local holder, taken_before = take(marks[n], marks[n + 1], t + marks[n + 2], t)
  if taken_before then
    stands_in[marks[n + 1]] = holder
  end
end

for n = 1, #extras, 2 do
  more_of[extras[n]] = extras[n + 1]
end

local letters, others = {}, {}

local function answer(n, letter, other)
  letters[n] = letter
  others[#others + 1] = other
end

-- Take the unique key of a job; the job that stands for it, if another has the key and does not lose it.
local function take_key(id, more, text)
  local limit = more[10] and more[10] > 0 and t + more[10] or nil
  local holder = take(more[4], id, limit, t)
  if holder == id or not more[11] then
    return holder ~= id and holder or nil
  end
  flush()
  local job = load(holder)
  if more[11] == 'cancel' then
    ended = job and cancel(job, BY_CLASH, t) or ended
    give(more[4], id, limit)
  elseif job and job.state == 'i' then
    replace(job, more[7], text)
    if more[11] == 'move' then
      hint = move(job, more[2] or t + more[1], more[12], t) <= t + SOON or hint
    end
  end
  flush()
  seen[holder] = seen[holder] and state_of(holder)
  return more[11] ~= 'cancel' and holder or nil
end

local function put_one(n, id, line, priority)
  if seen[id] or call('ZSCORE', ALL, id) then
    return answer(n, seen[id] or state_of(id), id)
  end
  local more = more_of[n] or NOTHING_MORE
  local other = stands_in[id]
  if not other and more[4] then
    other = take_key(id, more, ARGV[texts + n])
  end
  if other then
    return answer(n, seen[other] or (call('HEXISTS', JOBS, other) == 1 and state_of(other)) or '-', other)
  end
  local letter, due = insert(id, line, priority, more, ARGV[texts + n], t)
  letters[n], hint = letter, hint or due <= t + SOON
  seen[id] = string.lower(letters[n])
end

local at = 0
for n = 1, #runs, 3 do
  for one = at + 1, at + runs[n] do
    put_one(one, ids[one], runs[n + 1], runs[n + 2])
  end
  at = at + runs[n]
end
flush()
if hint then
  ring('work')
end
if ended then
  ring('done')
end
return {table.concat(letters), others}
