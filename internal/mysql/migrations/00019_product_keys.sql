-- The idempotency keys under which products were added over HTTP. A key is its user's own.

-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS product_keys (
    user_id         BIGINT         NOT NULL,
    idempotency_key VARBINARY(255) NOT NULL,
    -- SHA-256 of the request's body.
    body_hash       BINARY(32)     NOT NULL,
    product_id      BIGINT         NOT NULL,
    created_at      DATETIME(6)    NOT NULL,
    PRIMARY KEY (user_id, idempotency_key)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
