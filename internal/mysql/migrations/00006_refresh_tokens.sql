-- Refresh tokens, written and replaced under the lock of their session's row. A replaced one stays until its session is
-- purged, so that it is known when it comes back.

-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS refresh_tokens (
    -- SHA-256 of the token, which is random and long, so that it needs neither salt nor a slow hash.
    hash        BINARY(32)  NOT NULL,
    session_id  BINARY(16)  NOT NULL,
    issued_at   DATETIME(6) NOT NULL,
    -- When the next token of the session was issued in its place: that one's issued_at.
    replaced_at DATETIME(6) NULL,
    PRIMARY KEY (hash),
    KEY refresh_tokens_session (session_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
