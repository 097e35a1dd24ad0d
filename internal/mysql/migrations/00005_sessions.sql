-- A session is one login and the family of refresh tokens that come from it.

-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS sessions (
    -- A UUIDv7 (RFC 9562), whose bytes sort by time.
    id         BINARY(16)  NOT NULL,
    user_id    BIGINT      NOT NULL,
    created_at DATETIME(6) NOT NULL,
    -- Set once; refreshing does not put it off.
    expires_at DATETIME(6) NOT NULL,
    -- Set once; a revoked session stays revoked.
    revoked_at DATETIME(6) NULL,
    -- The number of times that its token was replaced.
    refreshes  BIGINT      NOT NULL,
    PRIMARY KEY (id),
    KEY sessions_user (user_id),
    KEY sessions_revoked (revoked_at),
    KEY sessions_expires (expires_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
