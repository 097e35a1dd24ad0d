-- Who is kept out: at most one row for each user and each range of addresses.

-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS bans (
    id         BIGINT       NOT NULL AUTO_INCREMENT,
    -- 'user' or 'address'; the column that it does not name is NULL.
    kind       VARCHAR(16)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    user_id    BIGINT       NULL,
    -- A range of IPv4 or IPv6 addresses in its one canonical form, as in 192.0.2.0/24 or 2001:db8::/32 (RFC 5952).
    cidr       VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NULL,
    reason     VARCHAR(200) NOT NULL,
    created_at DATETIME(6)  NOT NULL,
    -- NULL is never.
    expires_at DATETIME(3)  NULL,
    PRIMARY KEY (id),
    UNIQUE KEY bans_user (user_id),
    UNIQUE KEY bans_address (cidr),
    KEY bans_expires (expires_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
