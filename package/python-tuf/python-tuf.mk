################################################################################
#
# python-tuf
#
################################################################################

PYTHON_TUF_VERSION = 6.0.0
PYTHON_TUF_SOURCE = tuf-$(PYTHON_TUF_VERSION).tar.gz
PYTHON_TUF_SITE = https://files.pythonhosted.org/packages/25/b5/377a566dfa8286b2ca27ddbc792ab1645de0b6c65dd5bf03027b3bf8cc8f
PYTHON_TUF_LICENSE = Apache-2.0 or MIT
PYTHON_TUF_LICENSE_FILES = LICENSE LICENSE-MIT
PYTHON_TUF_SETUP_TYPE = hatch

$(eval $(python-package))
