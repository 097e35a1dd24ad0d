-- An order's row is its decision; it is written once. There are no foreign keys: an order may name a product that
-- is unknown, and is then failed.

-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS orders (
    -- A UUIDv7 (RFC 9562), whose bytes sort by time.
    id              BINARY(16)  NOT NULL,
    user_id         BIGINT      NOT NULL,
    product_id      BIGINT      NOT NULL,
    quantity        BIGINT      NOT NULL,
    -- Minor units, as promised to the buyer.
    unit_price      BIGINT      NOT NULL,
    currency        CHAR(3) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- 'completed', 'failed', or 'held' if it must be paid: then holds says what has become of it.
    status          VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    failed_reason   VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NULL,
    -- Bytes, because keys that differ only in trailing spaces are equal in a text column, but not to the client. An
    -- order whose key belongs to another order has none, so that its row can exist beside the other's.
    idempotency_key VARBINARY(255) NULL,
    reserved_at     DATETIME(3) NOT NULL,
    decided_at      DATETIME(6) NOT NULL,
    PRIMARY KEY (id),
    UNIQUE KEY orders_idempotency (user_id, idempotency_key),
    -- A user's history.
    KEY orders_history (user_id, id),
    -- The units a user has bought of a product, without a look at the rows themselves.
    KEY orders_limit (product_id, user_id, status, quantity)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
