-- Who waits or is scheduled, by line, so that they are counted without a walk over those of other lines.
CREATE INDEX idle ON live (state, line, rank) WHERE state IN ('waiting', 'scheduled');
