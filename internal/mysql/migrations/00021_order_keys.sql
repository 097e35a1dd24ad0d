-- The idempotency keys of orders that are young enough to matter. A key is a user's own for one product, as it is in
-- Redis. The product comes first, so that the keys of a sale lie together, whatever other products have sold.

-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS order_keys (
    product_id      BIGINT         NOT NULL,
    user_id         BIGINT         NOT NULL,
    -- Bytes, because keys that differ only in trailing spaces are equal in a text column, but not to the client.
    idempotency_key VARBINARY(255) NOT NULL,
    -- The order that holds the key, and since when it has held it in Redis.
    order_id        BINARY(16)     NOT NULL,
    used_at         DATETIME(3)    NOT NULL,
    PRIMARY KEY (product_id, user_id, idempotency_key),
    KEY order_keys_used (used_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
