-- What the programs must remember across their restarts and outside of Redis, by name.

-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS marks (
    name  VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (name)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
