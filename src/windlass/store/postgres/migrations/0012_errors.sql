-- Failed jobs by the class of their last error: see `Filter.error`. Only they have an entry in this index.

-- Of the last attempt: its error is the first thing that has a "type". (No JSON function: they refuse a \u0000 anywhere.)
CREATE FUNCTION error_of(attempts text[]) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN substring(attempts[array_upper(attempts, 1)] COLLATE "C" FROM '"type" ?: ?"([^"\\]{1,160})"');
END $$;
CREATE INDEX history_error ON history_failed (error_of(attempts) COLLATE "C", finished_at DESC, id)
    WHERE error_of(attempts) IS NOT NULL;
