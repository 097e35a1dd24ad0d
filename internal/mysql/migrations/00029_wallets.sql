-- What users have of points, and each change of it.

-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS wallets (
    user_id BIGINT NOT NULL,
    balance BIGINT NOT NULL,
    -- All points that ever came, and all that ever went.
    earned  BIGINT NOT NULL,
    spent   BIGINT NOT NULL,
    -- The number of rows that the wallet has in wallet_ledger.
    version BIGINT NOT NULL,
    PRIMARY KEY (user_id),
    CONSTRAINT wallets_balance_not_negative CHECK (balance >= 0)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS wallet_ledger (
    user_id    BIGINT NOT NULL,
    -- 1, 2, 3 and so on without a gap.
    version    BIGINT NOT NULL,
    -- 'topup', 'spend', 'refund' or 'adjustment'.
    type       VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    delta      BIGINT NOT NULL,
    -- The balance after the change.
    balance    BIGINT NOT NULL,
    -- What the change is for: the 16 bytes of an order's id, or another id of at most 64 characters.
    ref        VARBINARY(64) NOT NULL,
    -- Why, in words, of an adjustment.
    note       VARCHAR(200) NOT NULL,
    created_at DATETIME(6) NOT NULL,
    PRIMARY KEY (user_id, version),
    UNIQUE KEY wallet_ledger_once (user_id, type, ref)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
