"""Attention operations, one file each: o_i = 1/Z_i sum_j sim(q_i, k_j) v_j."""
