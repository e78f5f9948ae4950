################################################################################
#
# python-tuf
#
################################################################################

PYTHON_TUF_VERSION = 6.0.0
PYTHON_TUF_SOURCE = tuf-$(PYTHON_TUF_VERSION).tar.gz
PYTHON_TUF_SITE = https://github.com/theupdateframework/python-tuf/releases/download/v$(PYTHON_TUF_VERSION)
PYTHON_TUF_LICENSE = Apache-2.0 or MIT
PYTHON_TUF_LICENSE_FILES = LICENSE LICENSE-MIT
PYTHON_TUF_SETUP_TYPE = hatch

$(eval $(python-package))
