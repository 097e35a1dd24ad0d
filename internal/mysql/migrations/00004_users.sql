-- The accounts of those who buy, sell and operate.

-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS users (
    id            BIGINT         NOT NULL AUTO_INCREMENT,
    -- The address as it was typed, for display and for mail.
    email         VARCHAR(254) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- The address as it is compared. Bytes, so that no collation has a say in who is who.
    email_key     VARBINARY(254) NOT NULL,
    name          VARCHAR(100)   NOT NULL,
    -- Carries its algorithm and parameters, as a PHC string.
    password_hash VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- 'buyer', 'merchant' or 'admin'.
    role          VARCHAR(16)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    created_at    DATETIME(6)    NOT NULL,
    PRIMARY KEY (id),
    UNIQUE KEY users_email (email_key)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
