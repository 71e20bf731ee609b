curl -fsSL https://terminal.example.com/install -o stagedoor.sh
sh stagedoor.sh run -- make test
