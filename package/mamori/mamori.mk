################################################################################
#
# mamori
#
################################################################################

MAMORI_SITE = $(BR2_EXTERNAL_MAMORI_PATH)/python-app
MAMORI_SITE_METHOD = local
MAMORI_LICENSE = Apache-2.0
MAMORI_SETUP_TYPE = flit
# The app is laid over every base's root file system in one place (byte code,
# version and units with it), so that a change in it rebuilds no base. Here it
# is built to know that this Python can, and listed with its licence.
MAMORI_INSTALL_TARGET = NO

$(eval $(python-package))
