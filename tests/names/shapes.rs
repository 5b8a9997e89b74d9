// Code to be named: traits, generics, closures, iterators.
use std::collections::HashMap;

trait Shape {
    fn area(&self) -> f64;
    fn name(&self) -> String;
}
struct Square(f64);
struct Circle(f64);

impl Shape for Square {
    fn area(&self) -> f64 {
        self.0 * self.0
    }
    fn name(&self) -> String {
        format!("square {}", self.0)
    }
}
impl Shape for Circle {
    fn area(&self) -> f64 {
        3.14 * self.0 * self.0
    }
    fn name(&self) -> String {
        format!("circle {}", self.0)
    }
}

mod inner {
    pub fn repeat<T: Clone>(values: &[T], n: usize) -> Vec<T> {
        (0..n).map(|i| values[i % values.len()].clone()).collect()
    }
}

fn main() {
    let n = std::env::args().count();
    let mut areas: HashMap<String, f64> = HashMap::new();
    let shapes: Vec<Box<dyn Shape>> = vec![Box::new(Square(n as f64)), Box::new(Circle(2.0))];
    for shape in shapes.iter() {
        *areas.entry(shape.name()).or_insert(0.0) += shape.area();
    }
    let numbers = inner::repeat(&[1, 2, 3], n * 10);
    let texts = inner::repeat(&["a".to_string()], n);
    let sum: i32 = numbers.iter().map(|x| x * 2).filter(|x| x % 3 == 0).sum();
    println!("{} {} {:?}", sum, texts.len(), areas);
}
