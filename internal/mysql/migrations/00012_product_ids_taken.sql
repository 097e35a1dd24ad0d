-- The ids that products had before they were counted.

-- +goose NO TRANSACTION
-- +goose Up
INSERT IGNORE INTO product_ids (id) SELECT id FROM products WHERE id < 1099511627776;
