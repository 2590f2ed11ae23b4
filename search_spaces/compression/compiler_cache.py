"""Where torch's compilers keep the code that they run: in this user's cache, not in ``/tmp``.

Their own default is a folder in ``/tmp`` by the user's name, which another user may have made and
filled. This is the one file that touches torch's private names for it.
"""

from __future__ import annotations

import os

from nas.core.user_folders import use_private_compiler_caches


def use_private_caches() -> None:
    """Have what is compiled from now on be kept where only this user can write."""
    use_private_compiler_caches()
    from torch._inductor import codecache, config

    headers = os.path.join(os.environ["TORCHINDUCTOR_CACHE_DIR"], "precompiled_headers")
    if hasattr(codecache, "_HEADER_DIR") and hasattr(codecache, "_HEADER_LOCK_DIR"):
        # Torch takes its default for these, whatever the variable says.
        codecache._HEADER_DIR = headers
        codecache._HEADER_LOCK_DIR = os.path.join(headers, "locks")
    else:
        config.cpp_cache_precompile_headers = False
