-- A running job that asks for its gates again has its place there kept, under '~' and its id (see Store.rest), while it runs.
CREATE TRIGGER job_wants_no_more AFTER UPDATE OF state ON jobs
    WHEN old.gates IS NOT NULL AND old.state = 'running' AND new.state <> 'running'
BEGIN
    DELETE FROM holds WHERE job = '~' || old.id;
END;
