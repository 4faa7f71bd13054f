-- Whether a job matches a filter (state, queue, task, tag, error, ended_by; false for any).
local function matches(job, filter)
  if filter[1] and (job.state == 'i' and idle(job) or job.state) ~= filter[1] then
    return false
  end
  if filter[2] or filter[3] then
    local queue, task = string.match(job.line, '^([^/]*)/(.*)$')
    if (filter[2] and filter[2] ~= queue) or (filter[3] and filter[3] ~= task) then
      return false
    end
  end
  if filter[6] and job.finished and job.finished > filter[6] then
    return false
  end
  if filter[5] and (job.state ~= 'f' or error_of(job.id) ~= filter[5]) then
    return false
  end
  return not filter[4] or call('ZSCORE', P .. 'tag:' .. filter[4], job.id) ~= false
end
