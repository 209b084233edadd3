"""saccade: which attention should my Vision Transformer use?"""
