-- Units that were moved from one bucket of a product to another. The row that is inserted first is the decision.

-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS moves (
    -- A UUIDv7 (RFC 9562), whose bytes sort by time.
    id               BINARY(16)  NOT NULL,
    -- Ids of the buckets.
    donor            BIGINT      NOT NULL,
    receiver         BIGINT      NOT NULL,
    units            BIGINT      NOT NULL,
    -- The versions that the move made; 0 if it was cancelled.
    donor_version    BIGINT      NOT NULL,
    receiver_version BIGINT      NOT NULL,
    decided_at       DATETIME(6) NOT NULL,
    PRIMARY KEY (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
