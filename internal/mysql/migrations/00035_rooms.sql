-- Waiting rooms.

-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS rooms (
    product_id BIGINT     NOT NULL,
    -- 'open', 'paused' or 'closed'.
    state      VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- What the draw is made from. Only its hash is shown until the room is closed.
    seed       BINARY(32) NOT NULL,
    -- Places that are called in a second at most, and turns for each unit that is available, in thousandths.
    rate       BIGINT     NOT NULL,
    overbook   BIGINT     NOT NULL,
    grace_ms   BIGINT     NOT NULL,
    pass_ttl_ms BIGINT    NOT NULL,
    -- Whether Redis has been given the room. If it has none then, it has lost it.
    loaded     BOOLEAN    NOT NULL,
    -- How many had joined before the start, NULL before it.
    early      BIGINT     NULL,
    -- As they were a moment ago: how many have joined, and the place up to which all were called.
    joined     BIGINT     NOT NULL,
    front      BIGINT     NOT NULL,
    -- Turns that were out when places were called last, with those.
    turns      BIGINT     NOT NULL,
    opened_at  DATETIME(6) NOT NULL,
    closed_at  DATETIME(6) NULL,
    PRIMARY KEY (product_id),
    KEY rooms_state (state)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
