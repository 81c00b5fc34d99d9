"""Integer and real arrays assigned and read in every way: all with the data `d`."""

from __future__ import annotations

from collections.abc import Iterator

from .cases import Case

# name: (statements, result, number), all of `array[3,2] int d` = 1 to 6
ARRAYS = {
    "int array row": (
        "array[3,2] int a; for (i in 1:3) a[i] = rep_array(3, 2);",
        "sum(a[1])+sum(a[2])+sum(a[3])",
        "18",
    ),
    "int array row literal": (
        "array[3,2] int a; for (i in 1:3) a[i] = {1, 2};",
        "sum(a[1])+sum(a[2])+sum(a[3])",
        "9",
    ),
    "int array row from data": (
        "array[3,2] int a; for (i in 1:3) a[i] = d[i];",
        "sum(a[1])+sum(a[2])+sum(a[3])",
        "21",
    ),
    "int array slice": (
        "array[6] int a; a[1:3] = rep_array(3, 3); a[4:6] = rep_array(1, 3);",
        "sum(a)",
        "12",
    ),
    "int array column": (
        "array[3,2] int a; a[, 1] = rep_array(3, 3); a[, 2] = rep_array(1, 3);",
        "sum(a[1])+sum(a[2])+sum(a[3])",
        "12",
    ),
    "int array by index": (
        "array[3] int a; a[{3,1,2}] = {1,2,3};",
        "a[1]+10*a[2]+100*a[3]",
        "132",
    ),
    "real array row": (
        "array[3,2] real a; for (i in 1:3) a[i] = rep_array(3.0, 2);",
        "sum(a[1])+sum(a[2])+sum(a[3])",
        "18",
    ),
    "vector array row": (
        "array[3] vector[2] a; for (i in 1:3) a[i] = rep_vector(3.0, 2);",
        "sum(a[1])+sum(a[2])+sum(a[3])",
        "18",
    ),
    "matrix row": (
        "matrix[3,2] a; for (i in 1:3) a[i] = rep_row_vector(3.0, 2);",
        "sum(a)",
        "18",
    ),
    "matrix column": (
        "matrix[3,2] a; for (j in 1:2) a[, j] = rep_vector(3.0, 3);",
        "sum(a)",
        "18",
    ),
    "int array whole": (
        "array[3,2] int a = rep_array(3, 3, 2);",
        "sum(a[1])+sum(a[2])+sum(a[3])",
        "18",
    ),
    "int array row then element": (
        "array[3,2] int a = rep_array(0, 3, 2); for (i in 1:3) a[i] = {1, 2};",
        "sum(a[1])+sum(a[2])+sum(a[3])",
        "9",
    ),
    "int 3d row": (
        "array[2,2,2] int a; for (i in 1:2) a[i] = rep_array(1, 2, 2);",
        "sum(to_array_1d(a))",
        "8",
    ),
    "2d row with colon a[i, ]": (
        "array[3,2] int a = rep_array(0,3,2); for (i in 1:3) a[i, ] = {1, 2};",
        "sum(a[1])+sum(a[2])+sum(a[3])",
        "9",
    ),
    "2d row slice a[i, 1:2]": (
        "array[3,2] int a = rep_array(0,3,2); for (i in 1:3) a[i, 1:2] = {1, 2};",
        "sum(a[1])+sum(a[2])+sum(a[3])",
        "9",
    ),
    "2d rows slice a[1:2]": (
        "array[3,2] int a = rep_array(0,3,2); a[1:2] = {{1, 2}, {3, 4}};",
        "sum(a[1])+sum(a[2])+sum(a[3])",
        "10",
    ),
    "2d fixed row a[2] =": (
        "array[3,2] int a = rep_array(0,3,2); a[2] = {1, 2};",
        "sum(a[1])+sum(a[2])+sum(a[3])",
        "3",
    ),
    "2d multi index a[{1,3}]": (
        "array[3,2] int a = rep_array(0,3,2); a[{1,3}] = {{1, 2}, {3, 4}};",
        "sum(a[1])+sum(a[2])+sum(a[3])",
        "10",
    ),
    "2d row from function": (
        "array[3,2] int a = rep_array(0,3,2); for (i in 1:3) a[i] = sort_asc(d[i]);",
        "sum(a[1])+sum(a[2])+sum(a[3])",
        "21",
    ),
    "3d a[i,j] = row": (
        "array[2,2,2] int a = rep_array(0,2,2,2); for (i in 1:2) for (j in 1:2) a[i,j] = {1,2};",
        "sum(to_array_1d(a))",
        "12",
    ),
    "3d a[i] = 2d": (
        "array[2,2,2] int a = rep_array(0,2,2,2); for (i in 1:2) a[i] = {{1,2},{3,4}};",
        "sum(to_array_1d(a))",
        "20",
    ),
    "compound a[i,1] +=": (
        "array[3,2] int a = rep_array(1,3,2); for (i in 1:3) a[i,1] += 2;",
        "sum(a[1])+sum(a[2])+sum(a[3])",
        "12",
    ),
    "1d a += by loop": (
        "array[3] int a = rep_array(1,3); for (i in 1:3) a[i] += i;",
        "sum(a)",
        "9",
    ),
    "append_array": (
        "array[4] int a = append_array(d[1], d[2]);",
        "sum(a)",
        "10",
    ),
    "sort_indices": (
        "array[3] int a = sort_indices_desc({3,1,2});",
        "a[1]+10*a[2]+100*a[3]",
        "231",
    ),
    "while with break": (
        "int n = 0; while (1) { n += 1; if (n > 4) break; }",
        "n",
        "5",
    ),
    "continue": (
        "int n = 0; for (i in 1:6) { if (i % 2) continue; n += i; }",
        "n",
        "12",
    ),
    "foreach int array": (
        "int n = 0; for (i in {2,3,4}) n += i;",
        "n",
        "9",
    ),
    "foreach row of 2d": (
        "int n = 0; for (q in d) n += q[2];",
        "n",
        "12",
    ),
    "int division and modulus": (
        "int n = 7 %/% 2 + 7 % 4;",
        "n",
        "6",
    ),
    "ternary int": (
        "int n = d[1,1] == 1 ? 4 : 5;",
        "n",
        "4",
    ),
    "real row +=": (
        "array[3,2] real a = rep_array(1.0,3,2); for (i in 1:3) a[i] = {2.0, 3.0};",
        "sum(a[1])+sum(a[2])+sum(a[3])",
        "15",
    ),
    "vector array element": (
        "array[3] vector[2] a = rep_array(rep_vector(0,2),3); for (i in 1:3) a[i][2] = i;",
        "sum(a[1])+sum(a[2])+sum(a[3])",
        "6",
    ),
    "matrix block": (
        "matrix[3,2] a = rep_matrix(0,3,2); a[2:3, 1] = [1, 2]'; a[1, ] = [5, 6];",
        "sum(a)",
        "14",
    ),
    "to_array_1d of 2d int": (
        "array[6] int a = to_array_1d(d);",
        "a[1]+10*a[2]+100*a[3]",
        "321",
    ),
    "2d int copy": (
        "array[3,2] int a = d; a[1,1] = 7;",
        "sum(a[1])+sum(a[2])+sum(a[3])",
        "27",
    ),
    "2d int reassign": (
        "array[3,2] int a = rep_array(0,3,2); a = d;",
        "sum(a[1])+sum(a[2])+sum(a[3])",
        "21",
    ),
    "reverse": (
        "array[2] int a = reverse(d[3]);",
        "a[1]+10*a[2]",
        "56",
    ),
    "max of rows": (
        "array[3] int a; for (i in 1:3) a[i] = max(d[i]);",
        "sum(a)",
        "12",
    ),
    "cumulated positions": (
        "array[3] int pos; pos[1] = 1; for (i in 2:3) pos[i] = pos[i-1] + d[i-1,2];",
        "pos[3]",
        "7",
    ),
    "segment": (
        "array[2] int a = segment(to_array_1d(d), 3, 2);",
        "a[1]+10*a[2]",
        "43",
    ),
    "head tail": (
        "array[2] int a = {sum(head(d[3], 1)), sum(tail(d[3], 1))};",
        "a[1]+10*a[2]",
        "65",
    ),
    "rank": (
        "array[3] int a = {3, 1, 2}; int q = rank(a, 1);",
        "q",
        "2",
    ),
    "num_elements size": (
        "int n = num_elements(d) + size(d) + size(d[1]);",
        "n",
        "11",
    ),
    "min max": (
        "int n = min(d[2]) + max({d[1,1], d[3,2]});",
        "n",
        "9",
    ),
    "choose": (
        "int n = choose(5, 2);",
        "n",
        "10",
    ),
    "int abs": (
        "int n = abs(-3);",
        "n",
        "3",
    ),
    "count equal": (
        "int n = 0; for (i in 1:3) for (j in 1:2) n += d[i, j] > 2;",
        "n",
        "4",
    ),
    "logical": (
        "int n = (d[1,1] == 1 && d[1,2] == 2) + (d[1,1] == 2 || d[1,2] == 2) + !d[1,1];",
        "n",
        "2",
    ),
    "2d from element loops": (
        "array[3,3] int a = rep_array(0,3,3); for (i in 1:3) for (j in 1:2) a[d[i,j] % 3 + 1, i] += 1;",
        "a[1,3]+10*a[2,1]+100*a[2,2]",
        "111",
    ),
    "index array gather": (
        "array[3] int k = {3, 1, 2}; array[3] int a = d[k, 2];",
        "a[1]+10*a[2]+100*a[3]",
        "426",
    ),
    "2d gather rows": (
        "array[2,2] int a = d[{3,1}];",
        "a[1,1]+10*a[1,2]+100*a[2,1]+1000*a[2,2]",
        "2165",
    ),
    "2d gather rows of slice": (
        "array[2,2] int a = d[2:3];",
        "a[1,1]+10*a[1,2]+100*a[2,1]+1000*a[2,2]",
        "6543",
    ),
    "2d row copied": (
        "array[2] int q = d[2];",
        "q[1]+10*q[2]",
        "43",
    ),
    "row of 2d into 1d slice": (
        "array[6] int a; for (i in 1:3) a[(2*i-1):(2*i)] = d[i];",
        "a[1]+10*a[2]+100*a[5]",
        "521",
    ),
    "2d += elementwise": (
        "array[3,2] int a = d; for (i in 1:3) a[i, 2] -= a[i, 1];",
        "a[1,2]+a[2,2]+a[3,2]",
        "3",
    ),
    "while find": (
        "int j = 1; while (d[j, 1] < 5) j += 1;",
        "j",
        "3",
    ),
    "array of zero": (
        "array[0] int a; array[3] int c = append_array(a, {1,2,3});",
        "sum(c)",
        "6",
    ),
    "ones_int linspaced": (
        "array[3] int a = linspaced_int_array(3, 2, 6); array[2] int c = ones_int_array(2);",
        "a[2]*10+sum(c)",
        "42",
    ),
    "one_hot_int": (
        "array[3] int a = one_hot_int_array(3, 2);",
        "a[1]+10*a[2]+100*a[3]",
        "10",
    ),
    "ternary size": (
        "array[d[1,1] ? 2 : 0] int a = d[1];",
        "sum(a)",
        "3",
    ),
    "real from int division": (
        "real a = d[2,1] / d[1,2];",
        "a",
        "1",
    ),
    "int power": (
        "int a = 2; real q = a ^ 3;",
        "q",
        "8",
    ),
    "vector from int array": (
        "vector[2] v = to_vector(d[3]);",
        "v[1]+10*v[2]",
        "65",
    ),
    "count by group": (
        "array[3] int n = rep_array(0, 3); for (i in 1:3) n[i] = sum(d[i]);",
        "n[1]+10*n[2]+100*n[3]",
        "1173",
    ),
    "int matrix transposed": (
        "array[2,3] int a; for (i in 1:3) for (j in 1:2) a[j,i] = d[i,j];",
        "a[1,3]+10*a[2,1]",
        "25",
    ),
    "3d from 2d rows": (
        "array[2,3,2] int a; for (k in 1:2) a[k] = d;",
        "a[2,3,2]+10*a[1,1,1]",
        "16",
    ),
    "3d two index row": (
        "array[2,3,2] int a; for (k in 1:2) for (i in 1:3) a[k, i] = d[i];",
        "a[2,3,2]+10*a[1,1,1]",
        "16",
    ),
    "branches": (
        "int c = 0; for (i in 1:3) if (d[i,1] > 1) { c += 1; } else { c += 10; }",
        "c",
        "12",
    ),
    "nested function": (
        "int c = max(append_array(d[1], append_array(d[2], d[3])));",
        "c",
        "6",
    ),
    "sd mean int": (
        "real m = mean(d[3]);",
        "m",
        "5.5",
    ),
    "dims": (
        "int n = dims(d)[1] * 10 + dims(d)[2];",
        "n",
        "32",
    ),
    "reject unreachable": (
        'if (d[1,1] == 9) reject("no"); int n = 4;',
        "n",
        "4",
    ),
    "print": (
        "int n = 4; if (d[1,1] == 9) print(n);",
        "n",
        "4",
    ),
    "shadow loop": (
        "int n = 0; for (i in 1:2) { int k = i; n += k; }",
        "n",
        "3",
    ),
    "early return-like break nested": (
        "int n = 0; for (i in 1:3) { for (j in 1:2) { if (d[i,j] > 3) break; n += 1; } }",
        "n",
        "3",
    ),
}


def cases() -> Iterator[Case]:
    for name, (code, expression, truth) in ARRAYS.items():
        yield Case(name, f"{code} real r = {expression};", truth, uses=("d",))
