-- The orders that must be paid, from the moment when they have their units: what has become of them since. What changes
-- when many expire together has a fixed length, since InnoDB then overwrites it where it stands.

-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS holds (
    order_id   BINARY(16)  NOT NULL,
    -- The product, or the bucket, and its version that took the units.
    product_id BIGINT      NOT NULL,
    version    BIGINT      NOT NULL,
    -- As in the order, which may be archived.
    user_id    BIGINT      NOT NULL,
    quantity   BIGINT      NOT NULL,
    -- 'awaiting_payment', 'closing', 'completed', 'cancelled' or 'refunded'.
    state      CHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    pay_by     DATETIME(3) NOT NULL,
    -- When a worker is to cancel it, or to close its attempts to pay. It is in the year 9999 if there is nothing to be
    -- done, or if it waits for attempts to be closed.
    due_at     DATETIME(3) NOT NULL,
    -- Attempts to pay that may yet be paid.
    attempts   INT         NOT NULL,
    -- The number of the attempt that has paid it, 'points', or NULL.
    paid_by    VARBINARY(32) NULL,
    -- Why it was cancelled: 'unpaid', 'by_buyer' or 'by_staff'; or empty.
    reason     CHAR(8) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '',
    -- The version that returned the units, or 0.
    returned_version BIGINT NOT NULL DEFAULT 0,
    changed_at DATETIME(6) NOT NULL,
    PRIMARY KEY (order_id),
    KEY holds_due (state, due_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;

-- Units that MySQL has taken back, and that are to be put on sale in Redis. A row goes when Redis has them.
CREATE TABLE IF NOT EXISTS returned_units (
    -- As in holds.
    product_id  BIGINT     NOT NULL,
    order_id    BINARY(16) NOT NULL,
    user_id     BIGINT     NOT NULL,
    quantity    BIGINT     NOT NULL,
    -- The versions of the product that took the units and returned them.
    taken_at    BIGINT     NOT NULL,
    returned_at BIGINT     NOT NULL,
    PRIMARY KEY (product_id, order_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
