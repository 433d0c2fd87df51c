"""(contract draft, to be written)"""
