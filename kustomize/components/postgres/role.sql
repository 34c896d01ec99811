-- What the Secret says, made true before each start: a changed password is in
-- force after a restart of jellyfin-postgres, and of Jellyfin.
\getenv username JELLYFIN_USERNAME
\getenv password JELLYFIN_PASSWORD
\getenv database JELLYFIN_DATABASE
-- A statement that fails is logged, and here it would hold the password.
SET log_min_error_statement = panic;
SELECT format('CREATE ROLE %I', :'username')
  WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'username') \gexec
ALTER ROLE :"username" LOGIN PASSWORD :'password';
-- Jellyfin would make it itself, with the right to make others.
SELECT format('CREATE DATABASE %I OWNER %I', :'database', :'username')
  WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec
