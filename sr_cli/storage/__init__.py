"""What the program keeps on disk: where, how it is written, and who may write.

`places` names the folders, `atomic` writes files that appear complete or not at all, `json_lines` keeps journals,
`locks` keeps processes apart, `remote` reaches buckets, `checksums` and `sizes` are what their names say.
"""

from sr_cli.storage.atomic import atomic_output, check_name, is_temporary, remove_leftovers, sync, write_file
from sr_cli.storage.checksums import sha256_of_bytes, sha256_of_file
from sr_cli.storage.json_lines import JsonLines, parse_line
from sr_cli.storage.locks import Claims, locked
from sr_cli.storage.places import cache_folder, data_folder, provide_home, state_folder
from sr_cli.storage.prefetch import Prefetch
from sr_cli.storage.remote import Place, RemotePath, is_url, place, readable
from sr_cli.storage.sizes import format_bytes
