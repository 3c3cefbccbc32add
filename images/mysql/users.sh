# Sourced by the MySQL image's entrypoint at the first start: databases and users, each with its own rights and secret.
secret() { cat "/run/secrets/mysql_$1"; }
docker_process_sql << END
CREATE DATABASE mlflow CHARACTER SET utf8mb4;
CREATE DATABASE nightjar CHARACTER SET utf8mb4;
CREATE USER 'mlflow'@'%' IDENTIFIED BY '$(secret mlflow)';
GRANT ALL ON mlflow.* TO 'mlflow'@'%';
CREATE USER 'nightjar'@'%' IDENTIFIED BY '$(secret nightjar)';
GRANT ALL ON nightjar.* TO 'nightjar'@'%';
CREATE USER 'shop'@'%' IDENTIFIED BY '$(secret shop)';
GRANT SELECT ON nightjar.* TO 'shop'@'%';
CREATE USER 'backup'@'%' IDENTIFIED BY '$(secret backup)';
GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, LOCK TABLES, SHOW_ROUTINE ON *.* TO 'backup'@'%';
END
