-- Every change of a product's stock, one row for each version.

-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS stock_ledger (
    product_id BIGINT        NOT NULL,
    -- 1, 2, 3 and so on without a gap.
    version    BIGINT        NOT NULL,
    delta      BIGINT        NOT NULL,
    -- The stock after the change.
    balance    BIGINT        NOT NULL,
    -- 'initial', 'order', 'restock', 'move', 'split', 'correction' or 'return'.
    reason     VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- The 16 bytes of the order's id, also of a return, the id of the restock, or 'initial'.
    ref        VARBINARY(64) NOT NULL,
    created_at DATETIME(6)   NOT NULL,
    PRIMARY KEY (product_id, version),
    UNIQUE KEY stock_ledger_once (product_id, reason, ref)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
