-- The class of the error that a job failed with, for those that are looked up by it: see `Filter.error`.
ALTER TABLE jobs ADD COLUMN error TEXT;
UPDATE jobs SET error = (
    SELECT CASE WHEN json_valid(failure) THEN json_extract(failure, '$.type') END FROM attempts
    WHERE job = jobs.id ORDER BY fence DESC LIMIT 1
) WHERE state = 'failed';
UPDATE jobs SET error = NULL WHERE error IS NOT NULL AND (length(error) NOT BETWEEN 1 AND 160 OR error GLOB '*["\]*');
CREATE INDEX errors ON jobs (error, finished_at) WHERE error IS NOT NULL;
