-- The units that each user has bought of a product, by its completed orders up to products.counted.

-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS bought (
    product_id BIGINT NOT NULL,
    user_id    BIGINT NOT NULL,
    units      BIGINT NOT NULL,
    PRIMARY KEY (product_id, user_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
