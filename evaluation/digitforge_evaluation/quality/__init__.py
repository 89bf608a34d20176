"""How good are the images?"""
