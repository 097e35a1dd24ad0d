-- Each migration is one statement that may be repeated: MySQL commits before and after DDL, so a process
-- that dies between the statement and the note of its version runs the statement again.

-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS products (
    id             BIGINT       NOT NULL AUTO_INCREMENT,
    name           VARCHAR(200) NOT NULL,
    description    TEXT         NOT NULL,
    -- Minor units of the currency, for one unit of the product.
    price          BIGINT       NOT NULL,
    currency       CHAR(3) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- Units not sold.
    stock          BIGINT       NOT NULL,
    starts_at      DATETIME(3)  NULL,
    ends_at        DATETIME(3)  NULL,
    -- 0 is no limit.
    limit_per_user BIGINT       NOT NULL,
    -- The highest limit_per_user that was ever in force, 0 if there was a time without. The audit judges by it.
    limit_ceiling  BIGINT       NOT NULL,
    -- 'on_sale' or 'off_sale'.
    state          VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- Raised by every change of the settings.
    revision       BIGINT       NOT NULL,
    -- The number of rows that the product has in stock_ledger.
    version        BIGINT       NOT NULL,
    created_at     DATETIME(6)  NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT products_stock_not_negative CHECK (stock >= 0)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
