-- Counts the ids of products. AUTO_INCREMENT of products cannot do it: the rows of buckets have ids above those of all
-- products (bucket b of product p is p + b * 2^40), and push it there. So a product
-- that is inserted by hand, once others have buckets, needs an id of its own below 2^40.

-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS product_ids (
    id BIGINT NOT NULL AUTO_INCREMENT,
    PRIMARY KEY (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
