-- A key is a user's own for one product, as it is in Redis. One statement, so that the name, which the worker's statements
-- say, is there at every moment. A worker of before finds every order that it looks for by the index as well.

-- +goose NO TRANSACTION
-- +goose Up
ALTER TABLE orders
    DROP INDEX orders_idempotency,
    ADD UNIQUE KEY orders_idempotency (user_id, product_id, idempotency_key);
