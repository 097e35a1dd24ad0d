-- Failures of orders that an operator has taken back, so that the orders were decided anew.

-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS redrives (
    order_id    BINARY(16)  NOT NULL,
    redriven_at DATETIME(6) NOT NULL,
    product_id  BIGINT      NOT NULL,
    user_id     BIGINT      NOT NULL,
    -- When the order had failed.
    failed_at   DATETIME(6) NOT NULL,
    PRIMARY KEY (order_id, redriven_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
