-- Sums over the rows of orders and stock_ledger of a product, up to a place in both: what an audit need not add up again,
-- and what was archived.

-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS books (
    -- 'opening', of rows that were archived, or 'checkpoint', of rows that an audit has found to be sound. A checkpoint
    -- includes the opening.
    kind             VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    product_id       BIGINT NOT NULL,
    -- Of the ledger's rows up to this version, and the stock then.
    version          BIGINT NOT NULL,
    balance          BIGINT NOT NULL,
    initial_rows     BIGINT NOT NULL,
    initial_units    BIGINT NOT NULL,
    restocked_units  BIGINT NOT NULL,
    moved_units      BIGINT NOT NULL,
    booked_orders    BIGINT NOT NULL,
    booked_sum       BIGINT NOT NULL,
    -- Of the orders before the time, or the id, that the mark of the kind says.
    completed_orders BIGINT NOT NULL,
    completed_units  BIGINT NOT NULL,
    completed_sum    BIGINT NOT NULL,
    buyers_sum       BIGINT NOT NULL,
    failed_orders    BIGINT NOT NULL,
    PRIMARY KEY (kind, product_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
